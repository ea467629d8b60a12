"""Operations: what every process and queue does, what is wrong with it, and who goes first."""

"""Scores, boards and friends as players meet them, over sockets and all the processes."""

"""What one part announces, others do: once each, whoever dies."""

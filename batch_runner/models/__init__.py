"""What a model takes and costs."""

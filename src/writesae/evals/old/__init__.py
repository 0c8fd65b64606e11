"""Not moved to the frame yet."""

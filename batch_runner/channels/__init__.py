"""What becomes of saved pictures: as each channel takes them."""

"""What is looked at: one self-contained page of pictures."""

"""What becomes of entries that are not kept."""

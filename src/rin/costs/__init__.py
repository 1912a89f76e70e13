"""What networks cost: operations and memory, counted without computing."""

"""What is there, before anything is decoded: the pictures, videos and arrays of a source, listed."""

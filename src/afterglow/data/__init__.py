"""Room 1: pictures, captions and what is planted among them."""

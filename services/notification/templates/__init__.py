"""The texts as files, and the code that checks and fills them."""

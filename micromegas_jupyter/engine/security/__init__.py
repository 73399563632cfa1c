"""What keeps rows from callers who must not see them."""

"""What is known of a statement before it runs: its tokens, limits, placeholders and plan."""

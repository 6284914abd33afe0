"""What policies are worth, and which method is better."""

"""What can be said of methods, searches and policies, with intervals."""

"""A process with planted mistakes, small enough that all is known of it, a policy for it, and measures of methods."""

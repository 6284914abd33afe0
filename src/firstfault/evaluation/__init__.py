"""How good an agent is: runs on held-out tasks, a record of each, and what they say."""

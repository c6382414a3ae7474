"""Work outside of requests: what a queue's message carries, and work for every tenant."""

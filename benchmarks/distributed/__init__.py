"""Loading by several processes: what it takes on storage and networks of known speeds, and what that predicts."""

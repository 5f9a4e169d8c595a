"""The call itself: contracts, pure decisions (turn-taking, endpointing, clauses), and the session."""

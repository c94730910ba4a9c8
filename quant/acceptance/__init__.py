"""Criteria with limits and evidence, and the rule by which a winner is chosen."""

"""Worlds to drive in: the convoy world, a user's environment, frozen scenarios, rollouts, the reference policy."""

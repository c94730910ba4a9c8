"""How well a policy drives and how closely it follows the float policy, with the uncertainty of both."""

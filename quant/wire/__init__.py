"""What two ends of a line agree on, without a board: frames, messages, the link, its log."""

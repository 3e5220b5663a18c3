"""When a call may leave: rates, slots, polls, and the hours of the window."""

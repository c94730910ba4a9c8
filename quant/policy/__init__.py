"""Float Deep Sets policies: the architecture, how it computes, import and saving."""

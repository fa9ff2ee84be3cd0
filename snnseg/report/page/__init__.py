"""The one page: how accurate, how robust and how frugal each net is, beside the paper's own numbers."""

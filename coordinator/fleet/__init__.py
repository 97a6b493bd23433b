"""Know the edges and hand devices to them."""

"""Models on KServe: a service per version, and a route that shares the traffic between them."""

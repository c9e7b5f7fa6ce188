"""Model Registry, endpoints and batch predictions of Vertex AI."""

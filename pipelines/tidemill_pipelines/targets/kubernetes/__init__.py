"""The Kubernetes target: pipelines on Kubeflow Pipelines, models on KServe."""

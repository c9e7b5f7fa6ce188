"""Training as a TrainJob of Kubeflow Trainer, which a task of the pipeline makes and watches."""

"""MLflow: one run a training, one a sweep with its trials below it, in sqlite below data/mlflow. The only room that imports mlflow."""

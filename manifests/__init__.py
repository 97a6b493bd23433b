"""What runs where: the one-machine site and the Kubernetes manifests."""

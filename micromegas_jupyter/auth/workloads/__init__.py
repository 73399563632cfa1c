"""Programs that their platform vouches for: GitHub Actions, Kubernetes, Google Cloud, Azure."""

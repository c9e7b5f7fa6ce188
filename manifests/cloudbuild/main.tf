terraform {
  required_version = ">= 1.6"
  required_providers {
    google = {
      source  = "hashicorp/google"
      version = ">= 6.0, < 8.0"
    }
  }
}

provider "google" {
  project = var.project
  region  = var.region
}

locals {
  registry   = "${var.region}-docker.pkg.dev/${var.project}/${var.images_repository}"
  packages   = "https://${var.region}-python.pkg.dev/${var.project}/${var.packages_repository}"
  connection = regex("/connections/([^/]+)/", var.repository)[0]
  tools = {
    _DOCKER = var.docker_image
    _GCLOUD = var.gcloud_image
  }
}

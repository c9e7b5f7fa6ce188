variable "project" {
  description = "Project that the builds run in."
  type        = string
}

variable "region" {
  description = "Region of triggers, images and runs."
  type        = string
}

variable "repository" {
  description = "The connected repository: projects/<p>/locations/<region>/connections/<c>/repositories/<r>."
  type        = string
}

variable "docker_image" {
  description = "Image with docker's client and buildx: docker.io/library/docker@sha256:…"
  type        = string
  validation {
    condition     = can(regex("@sha256:[0-9a-f]{64}$", var.docker_image))
    error_message = "Must be pinned by digest: name@sha256:…"
  }
}

variable "gcloud_image" {
  description = "Image with gcloud: gcr.io/google.com/cloudsdktool/google-cloud-cli@sha256:…"
  type        = string
  validation {
    condition     = can(regex("@sha256:[0-9a-f]{64}$", var.gcloud_image))
    error_message = "Must be pinned by digest: name@sha256:…"
  }
}

variable "buildkit_image" {
  description = "Image of BuildKit, which builds what merges release: docker.io/moby/buildkit@sha256:…"
  type        = string
  validation {
    condition     = can(regex("@sha256:[0-9a-f]{64}$", var.buildkit_image))
    error_message = "Must be pinned by digest: name@sha256:…"
  }
}

variable "images_repository" {
  description = "Name of the Docker repository of Artifact Registry in this project and region."
  type        = string
  default     = "tidemill"
}

variable "packages_repository" {
  description = "Name of the Python repository of Artifact Registry in this project and region."
  type        = string
  default     = "tidemill-python"
}

variable "records_bucket" {
  description = "Bucket of images.json, bills of materials, compiled pipelines and uv's cache, without gs://."
  type        = string
}

variable "pipeline_bucket" {
  description = "Bucket of the targets' pipeline_root, without gs://."
  type        = string
}

variable "data_bucket" {
  description = "Bucket whose new objects are new data, without gs://."
  type        = string
}

variable "data_prefix" {
  description = "What the names of new data begin with."
  type        = string
  default     = "loans/"
}

variable "pipeline_service_account" {
  description = "E-mail address of the account that the targets' runs use (service_account of their files)."
  type        = string
}

variable "problem" {
  description = "Directory of the problem that is released."
  type        = string
  default     = "pipelines/problems/lending"
}

variable "staging_target" {
  description = "Target that proves a commit."
  type        = string
  default     = "targets/staging.yaml"
}

variable "production_target" {
  description = "Target whose schedule is promoted."
  type        = string
  default     = "targets/production.yaml"
}

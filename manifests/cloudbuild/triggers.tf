resource "google_cloudbuild_trigger" "pull_request" {
  name            = "tidemill-pull-request"
  description     = "Lint, tests, images without push, compile, check, golden diff."
  location        = var.region
  filename        = ".ci/cloudbuild/pull-request.yaml"
  service_account = google_service_account.review.id
  repository_event_config {
    repository = var.repository
    pull_request {
      branch          = "^main$"
      comment_control = "COMMENTS_ENABLED_FOR_EXTERNAL_CONTRIBUTORS_ONLY"
    }
  }
  include_build_logs = "INCLUDE_BUILD_LOGS_WITH_STATUS"
  substitutions = {
    _DOCKER  = local.tools._DOCKER
    _PROBLEM = var.problem
  }
}

resource "google_cloudbuild_trigger" "merge" {
  name            = "tidemill-merge"
  description     = "Build, push, scan, try on staging, promote production's schedule."
  location        = var.region
  filename        = "cloudbuild.yaml"
  service_account = google_service_account.merge.id
  repository_event_config {
    repository = var.repository
    push {
      branch = "^main$"
    }
  }
  ignored_files = ["**/*.md"]
  substitutions = {
    _DOCKER            = local.tools._DOCKER
    _GCLOUD            = local.tools._GCLOUD
    _BUILDKIT          = var.buildkit_image
    _REPOSITORY        = var.repository
    _REGISTRY          = local.registry
    _RECORDS           = var.records_bucket
    _PROBLEM           = var.problem
    _STAGING_TARGET    = var.staging_target
    _PRODUCTION_TARGET = var.production_target
  }
}

resource "google_cloudbuild_trigger" "release" {
  name            = "tidemill-release"
  description     = "Name what was merged and tried after the tag."
  location        = var.region
  filename        = ".ci/cloudbuild/release.yaml"
  service_account = google_service_account.release.id
  repository_event_config {
    repository = var.repository
    push {
      tag = "^v[0-9]+\\.[0-9]+\\.[0-9]+$"
    }
  }
  approval_config {
    approval_required = true
  }
  substitutions = {
    _DOCKER   = local.tools._DOCKER
    _GCLOUD   = local.tools._GCLOUD
    _REGISTRY = local.registry
    _RECORDS  = var.records_bucket
    _PACKAGES = local.packages
  }
}

# Run by Cloud Scheduler, below.
resource "google_cloudbuild_trigger" "nightly" {
  name            = "tidemill-nightly"
  description     = "Does main still build, and what is known of production's images?"
  location        = var.region
  service_account = google_service_account.nightly.id
  source_to_build {
    repository = var.repository
    ref        = "refs/heads/main"
    repo_type  = "GITHUB"
  }
  git_file_source {
    path       = ".ci/cloudbuild/nightly.yaml"
    repository = var.repository
    revision   = "refs/heads/main"
    repo_type  = "GITHUB"
  }
  substitutions = {
    _DOCKER  = local.tools._DOCKER
    _GCLOUD  = local.tools._GCLOUD
    _RECORDS = var.records_bucket
  }
}

resource "google_cloudbuild_trigger" "new_data" {
  name            = "tidemill-new-data"
  description     = "Production trains on data that has just arrived."
  location        = var.region
  service_account = google_service_account.data.id
  pubsub_config {
    topic = google_pubsub_topic.new_data.id
  }
  source_to_build {
    repository = var.repository
    ref        = "refs/heads/main"
    repo_type  = "GITHUB"
  }
  git_file_source {
    path       = ".ci/cloudbuild/new-data.yaml"
    repository = var.repository
    revision   = "refs/heads/main"
    repo_type  = "GITHUB"
  }
  filter = "_EVENT == \"OBJECT_FINALIZE\" && _OBJECT.startsWith(\"${var.data_prefix}\")"
  substitutions = {
    _DOCKER            = local.tools._DOCKER
    _GCLOUD            = local.tools._GCLOUD
    _REPOSITORY        = var.repository
    _RECORDS           = var.records_bucket
    _PROBLEM           = var.problem
    _PRODUCTION_TARGET = var.production_target
    _EVENT             = "$(body.message.attributes.eventType)"
    _BUCKET            = "$(body.message.attributes.bucketId)"
    _OBJECT            = "$(body.message.attributes.objectId)"
    _MESSAGE           = "$(body.message.messageId)"
  }
}

# What starts builds besides the repository: the clock, and new data.

resource "google_cloud_scheduler_job" "nightly" {
  name             = "tidemill-nightly"
  region           = var.region
  schedule         = "0 1 * * *"
  time_zone        = "Etc/UTC"
  attempt_deadline = "180s"
  http_target {
    http_method = "POST"
    uri         = "https://cloudbuild.googleapis.com/v1/${google_cloudbuild_trigger.nightly.id}:run"
    oauth_token {
      service_account_email = google_service_account.clock.email
    }
  }
  retry_config {
    retry_count = 3
  }
}

# clock: starts a build, which it may do with the trigger's account alone.
resource "google_project_iam_member" "start" {
  project = var.project
  role    = "roles/cloudbuild.builds.editor"
  member  = google_service_account.clock.member
}

resource "google_service_account_iam_member" "clock_as_nightly" {
  service_account_id = google_service_account.nightly.name
  role               = "roles/iam.serviceAccountUser"
  member             = google_service_account.clock.member
}

resource "google_pubsub_topic" "new_data" {
  name                       = "tidemill-new-data"
  message_retention_duration = "86400s"
}

resource "google_storage_notification" "new_data" {
  bucket             = var.data_bucket
  topic              = google_pubsub_topic.new_data.id
  payload_format     = "NONE" # the name is an attribute, and nothing else is wanted
  event_types        = ["OBJECT_FINALIZE"]
  object_name_prefix = var.data_prefix
  depends_on         = [google_pubsub_topic_iam_member.storage]
}

data "google_storage_project_service_account" "storage" {}

# Cloud Storage's own account: tells of new objects.
resource "google_pubsub_topic_iam_member" "storage" {
  topic  = google_pubsub_topic.new_data.id
  role   = "roles/pubsub.publisher"
  member = data.google_storage_project_service_account.storage.member
}

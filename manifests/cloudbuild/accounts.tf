# One account per trust: what a pull request may be written by anyone, what a merge releases was reviewed. Roles of a
# project are given only where Google has no narrower resource; the README says what each is for.

resource "google_service_account" "review" {
  account_id   = "tidemill-ci-review"
  display_name = "Cloud Build: pull requests"
}

resource "google_service_account" "merge" {
  account_id   = "tidemill-ci-merge"
  display_name = "Cloud Build: merges"
}

resource "google_service_account" "release" {
  account_id   = "tidemill-ci-release"
  display_name = "Cloud Build: tags"
}

resource "google_service_account" "nightly" {
  account_id   = "tidemill-ci-nightly"
  display_name = "Cloud Build: nights"
}

resource "google_service_account" "data" {
  account_id   = "tidemill-ci-data"
  display_name = "Cloud Build: new data"
}

resource "google_service_account" "clock" {
  account_id   = "tidemill-ci-clock"
  display_name = "Cloud Scheduler: starts the nightly build"
}

locals {
  builders = {
    review  = google_service_account.review.member
    merge   = google_service_account.merge.member
    release = google_service_account.release.member
    nightly = google_service_account.nightly.member
    data    = google_service_account.data.member
  }
  scanners = {
    merge   = google_service_account.merge.member
    nightly = google_service_account.nightly.member
  }
  submitters = {
    merge = google_service_account.merge.member
    data  = google_service_account.data.member
  }
  record_readers = {
    nightly = google_service_account.nightly.member
    data    = google_service_account.data.member
  }
  record_writers = {
    merge   = google_service_account.merge.member
    release = google_service_account.release.member
  }
  image_readers = {
    nightly = google_service_account.nightly.member
  }
  image_writers = {
    merge   = google_service_account.merge.member
    release = google_service_account.release.member
  }
}

# Every builder: a build that has an account of its own writes its log itself.
resource "google_project_iam_member" "logs" {
  for_each = local.builders
  project  = var.project
  role     = "roles/logging.logWriter"
  member   = each.value
}

# merge: turn.py lists the builds of its trigger.
resource "google_project_iam_member" "builds" {
  project = var.project
  role    = "roles/cloudbuild.builds.viewer"
  member  = google_service_account.merge.member
}

# merge, data: history.py fetches commits with the token that Cloud Build itself clones with.
resource "google_cloudbuildv2_connection_iam_member" "history" {
  for_each = local.submitters
  project  = var.project
  location = var.region
  name     = local.connection
  role     = "roles/cloudbuild.readTokenAccessor"
  member   = each.value
}

# merge, nightly: scan.py has images scanned and reads what was found.
resource "google_project_iam_member" "scans" {
  for_each = local.scanners
  project  = var.project
  role     = "roles/ondemandscanning.admin"
  member   = each.value
}

# merge, data: pipeline runs and, for merge, schedules. Vertex AI has no narrower resource to give it on.
resource "google_project_iam_member" "runs" {
  for_each = local.submitters
  project  = var.project
  role     = "roles/aiplatform.user"
  member   = each.value
}

# merge, data: a run is submitted to run as the pipelines' account.
resource "google_service_account_iam_member" "act_as" {
  for_each           = local.submitters
  service_account_id = "projects/${var.project}/serviceAccounts/${var.pipeline_service_account}"
  role               = "roles/iam.serviceAccountUser"
  member             = each.value
}

# merge, data: bundles and compiled pipelines are uploaded below the pipeline root; what is there is never overwritten.
resource "google_storage_bucket_iam_member" "bundles" {
  for_each = local.submitters
  bucket   = var.pipeline_bucket
  role     = "roles/storage.objectUser"
  member   = each.value
}

# merge, release: push images and add tags.
resource "google_artifact_registry_repository_iam_member" "push" {
  for_each   = local.image_writers
  project    = var.project
  location   = var.region
  repository = var.images_repository
  role       = "roles/artifactregistry.writer"
  member     = each.value
}

# nightly: scans what production runs.
resource "google_artifact_registry_repository_iam_member" "pull" {
  for_each   = local.image_readers
  project    = var.project
  location   = var.region
  repository = var.images_repository
  role       = "roles/artifactregistry.reader"
  member     = each.value
}

# release: the Python package.
resource "google_artifact_registry_repository_iam_member" "packages" {
  project    = var.project
  location   = var.region
  repository = var.packages_repository
  role       = "roles/artifactregistry.writer"
  member     = google_service_account.release.member
}

# merge, release: write the records; the cache of merge is there, too.
resource "google_storage_bucket_iam_member" "write_records" {
  for_each = local.record_writers
  bucket   = var.records_bucket
  role     = "roles/storage.objectUser"
  member   = each.value
}

# nightly, data: which images production runs.
resource "google_storage_bucket_iam_member" "read_records" {
  for_each = local.record_readers
  bucket   = var.records_bucket
  role     = "roles/storage.objectViewer"
  member   = each.value
}

# What machines run as is nobody: they get no service account. This one is the control plane's.
resource "google_service_account" "atoll" {
  account_id   = "${var.name}-atoll"
  project      = var.project
  display_name = "Atoll's control plane"

  depends_on = [google_project_service.apis]
}

locals {
  # Public images need no right; those of the project do.
  own_image = startswith(var.image, "projects/${var.project}/") ? [
    "compute.images.get",
    "compute.images.getFromFamily",
    "compute.images.useReadOnly",
  ] : []
}

# Both roles together are the rights that `atoll provider doctor` prints.
resource "google_project_iam_custom_role" "look" {
  role_id     = "${replace(var.name, "-", "_")}_atoll_look"
  project     = var.project
  title       = "Atoll: look, and make machines from what is here"
  description = "Rights that change nothing that exists"

  permissions = concat(local.own_image, [
    "compute.acceleratorTypes.list",
    "compute.instances.list",
    "compute.machineTypes.list",
    "compute.projects.get",
    "compute.regions.get",
    "compute.subnetworks.get",
    "compute.subnetworks.use",
    "compute.subnetworks.useExternalIp",
    "compute.zoneOperations.get",
    "compute.zones.get",
  ])
}

resource "google_project_iam_custom_role" "machines" {
  role_id     = "${replace(var.name, "-", "_")}_atoll_machines"
  project     = var.project
  title       = "Atoll: its machines"
  description = "Make, stop, start and end machines"

  permissions = [
    "compute.disks.create",
    "compute.instances.create",
    "compute.instances.delete",
    "compute.instances.get",
    "compute.instances.getSerialPortOutput",
    "compute.instances.setLabels",
    "compute.instances.setMetadata",
    "compute.instances.start",
    "compute.instances.stop",
  ]
}

resource "google_project_iam_member" "look" {
  project = var.project
  role    = google_project_iam_custom_role.look.name
  member  = "serviceAccount:${google_service_account.atoll.email}"
}

resource "google_project_iam_member" "machines" {
  project = var.project
  role    = google_project_iam_custom_role.machines.name
  member  = "serviceAccount:${google_service_account.atoll.email}"

  dynamic "condition" {
    for_each = var.only_own_names ? ["atoll-"] : []

    content {
      title       = "machines of Atoll"
      description = "Names that Atoll gives"
      expression = join(" || ", [
        "resource.name.extract('/instances/{name}').startsWith('${condition.value}')",
        "resource.name.extract('/disks/{name}').startsWith('${condition.value}')",
      ])
    }
  }
}

resource "google_service_account_key" "atoll" {
  count = var.make_key ? 1 : 0

  service_account_id = google_service_account.atoll.name
}

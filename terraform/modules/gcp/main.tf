resource "google_project_service" "apis" {
  for_each = toset(["compute.googleapis.com", "iam.googleapis.com", "cloudbilling.googleapis.com"])

  project            = var.project
  service            = each.key
  disable_on_destroy = false
}

data "google_compute_zones" "all" {
  project = var.project
  region  = var.region

  depends_on = [google_project_service.apis]
}

data "google_compute_image" "debian" {
  count = var.image == "" ? 1 : 0

  project = "debian-cloud"
  family  = "debian-12"
}

resource "google_compute_network" "agents" {
  name                    = "${var.name}-agents"
  project                 = var.project
  auto_create_subnetworks = false

  depends_on = [google_project_service.apis]
}

resource "google_compute_subnetwork" "agents" {
  name          = "${var.name}-agents"
  project       = var.project
  region        = var.region
  network       = google_compute_network.agents.id
  ip_cidr_range = var.cidr
}

# A network lets nothing in by itself, and everything out: what goes out is named here, the rest refused.
resource "google_compute_firewall" "out" {
  name               = "${var.name}-agents-out"
  project            = var.project
  network            = google_compute_network.agents.id
  direction          = "EGRESS"
  priority           = 1000
  destination_ranges = ["0.0.0.0/0"]

  allow {
    protocol = "tcp"
    ports    = [tostring(var.control_port), "53"]
  }

  allow {
    protocol = "udp"
    ports    = ["53"]
  }
}

resource "google_compute_firewall" "nothing_else" {
  name               = "${var.name}-agents-nothing-else"
  project            = var.project
  network            = google_compute_network.agents.id
  direction          = "EGRESS"
  priority           = 65534
  destination_ranges = ["0.0.0.0/0"]

  deny {
    protocol = "all"
  }
}

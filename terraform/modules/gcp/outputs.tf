locals {
  # A service account's key is a JSON document: the credentials are its keys and values.
  credentials = var.make_key ? jsondecode(base64decode(google_service_account_key.atoll[0].private_key)) : null
}

output "atoll_provider" {
  description = "The provider's document: `atoll provider add --from-terraform FILE` reads it."
  sensitive   = true

  value = {
    name = var.name
    type = "gcp"

    settings = merge(
      {
        project    = var.project
        region     = var.region
        zones      = length(var.zones) > 0 ? var.zones : sort(data.google_compute_zones.all.names)
        network    = google_compute_network.agents.id
        subnetwork = google_compute_subnetwork.agents.id
        image      = var.image != "" ? var.image : data.google_compute_image.debian[0].id
      },
      var.make_key ? { credentials = local.credentials } : {},
    )
  }
}

# One project for Atoll's machines. Credentials: as everywhere in Terraform (gcloud auth application-default login).

variable "project" {
  type    = string
  default = "my-project"
}

provider "google" {
  project = var.project
}

module "atoll" {
  source = "../../modules/gcp"

  name    = "gcp"
  project = var.project
  region  = "europe-west4"
}

output "atoll_provider" {
  value     = module.atoll.atoll_provider
  sensitive = true
}

# One project of an OpenStack cloud for Atoll's machines. Credentials: OS_CLOUD or OS_* in the environment.

terraform {
  required_providers {
    openstack = {
      source = "terraform-provider-openstack/openstack"
    }
  }
}

variable "auth_url" {
  type    = string
  default = "https://keystone.example.com:5000/v3"
}

provider "openstack" {}

module "atoll" {
  source = "../../modules/openstack"

  name             = "hall"
  auth_url         = var.auth_url
  external_network = "public"
}

output "atoll_provider" {
  value     = module.atoll.atoll_provider
  sensitive = true
}

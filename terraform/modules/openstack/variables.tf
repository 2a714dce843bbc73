variable "name" {
  description = "Name of the provider in Atoll, and the beginning of the name of everything made here."
  type        = string
  default     = "openstack"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,31}$", var.name))
    error_message = "At most 32 of a-z, 0-9 and -, a letter first."
  }
}

variable "auth_url" {
  description = "Address of Keystone, as the control plane reaches it: https://keystone.example.com:5000/v3."
  type        = string
}

variable "region" {
  description = "Region of the cloud."
  type        = string
  default     = "RegionOne"
}

variable "external_network" {
  description = "Name of the network that leads out; empty: the machines' network has no router."
  type        = string
  default     = ""
}

variable "cidr" {
  description = "Addresses of the machines' network."
  type        = string
  default     = "10.83.0.0/16"
}

variable "image" {
  description = "Name of an image that runs cloud-init; the newest of that name is taken."
  type        = string
  default     = "debian-12"
}

variable "control_port" {
  description = "TCP port of the control plane: all that agents dial, besides DNS."
  type        = number
  default     = 443
}

variable "roles" {
  description = "Roles of the application credential, a part of your own: enough to make and end servers."
  type        = list(string)
  default     = ["member"]
}

variable "expires_at" {
  description = "When the credential ends, as 2027-01-31T00:00:00Z; null: never."
  type        = string
  default     = null
}

# The same rules as `atoll provider doctor` prints.
variable "access_rules" {
  description = "The calls the credential is good for. Where services lie below another path, paths begin with it; empty: all calls of the roles, for a cloud whose services do not check rules."
  type        = list(object({ service = string, method = string, path = string }))

  default = [
    { service = "compute", method = "GET", path = "/v2.1/servers/detail" },
    { service = "compute", method = "GET", path = "/v2.1/servers/*" },
    { service = "compute", method = "POST", path = "/v2.1/servers" },
    { service = "compute", method = "POST", path = "/v2.1/servers/*/action" },
    { service = "compute", method = "DELETE", path = "/v2.1/servers/*" },
    { service = "compute", method = "GET", path = "/v2.1/flavors/detail" },
    { service = "compute", method = "GET", path = "/v2.1/flavors/*/os-extra_specs" },
    { service = "compute", method = "GET", path = "/v2.1/limits" },
    { service = "compute", method = "GET", path = "/v2.1/os-availability-zone" },
    { service = "image", method = "GET", path = "/v2/images" },
    { service = "image", method = "GET", path = "/v2/images/*" },
    { service = "network", method = "GET", path = "/v2.0/networks" },
    { service = "network", method = "GET", path = "/v2.0/networks/*" },
    { service = "network", method = "GET", path = "/v2.0/security-groups" },
  ]
}

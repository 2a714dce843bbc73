variable "name" {
  description = "Name of the provider in Atoll, and the beginning of the name of everything made here."
  type        = string
  default     = "azure"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,31}$", var.name))
    error_message = "At most 32 of a-z, 0-9 and -, a letter first."
  }
}

variable "region" {
  description = "Region, as westeurope."
  type        = string
  default     = "westeurope"
}

variable "zones" {
  description = "Availability zones to make machines in; empty in a region that has none."
  type        = list(string)
  default     = ["1", "2", "3"]
}

variable "cidr" {
  description = "Addresses of the machines' network."
  type        = string
  default     = "10.82.0.0/16"
}

variable "image" {
  description = "The machines' image, as publisher:offer:sku:version or an image's id; it must run cloud-init."
  type        = string
  default     = "Debian:debian-12:12-gen2:latest"
}

variable "control_port" {
  description = "TCP port of the control plane: all that agents dial, besides DNS."
  type        = number
  default     = 443
}

variable "secret_until" {
  description = "When the application's secret ends, as 2027-01-31T00:00:00Z; null: two years from now."
  type        = string
  default     = null
}

variable "tags" {
  description = "Tags of everything made here and of Atoll's machines."
  type        = map(string)
  default     = {}
}

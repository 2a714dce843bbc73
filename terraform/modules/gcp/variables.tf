variable "name" {
  description = "Name of the provider in Atoll, and the beginning of the name of everything made here."
  type        = string
  default     = "gcp"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,18}$", var.name))
    error_message = "At most 19 of a-z, 0-9 and -, a letter first: service accounts have short names."
  }
}

variable "project" {
  description = "Id of the project."
  type        = string
}

variable "region" {
  description = "Region of the machines' subnetwork."
  type        = string
  default     = "europe-west4"
}

variable "zones" {
  description = "Zones to make machines in; empty: all of the region."
  type        = list(string)
  default     = []
}

variable "cidr" {
  description = "Addresses of the machines' subnetwork."
  type        = string
  default     = "10.81.0.0/16"
}

variable "image" {
  description = "The machines' image, as projects/PROJECT/global/images/NAME or …/images/family/NAME; empty: the newest Debian 12."
  type        = string
  default     = ""
}

variable "control_port" {
  description = "TCP port of the control plane: all that agents dial, besides DNS."
  type        = number
  default     = 443
}

variable "make_key" {
  description = "Whether the service account gets a key; without one the control plane runs as the account by itself."
  type        = bool
  default     = true
}

variable "only_own_names" {
  description = "Bind the rights on machines to names that begin with atoll-. The doctor cannot see rights under a condition, and reports them missing."
  type        = bool
  default     = false
}

variable "name" {
  description = "The beginning of the name of everything made here."
  type        = string
  default     = "atoll"
}

variable "package" {
  description = "What pip installs: the URL of a wheel as `atoll[aws] @ https://…`, or a requirement as `atoll[aws]`."
  type        = string
  default     = "atoll[aws]"

  validation {
    condition     = can(regex("^[^'\n]+$", var.package))
    error_message = "One line without quotes."
  }
}

variable "hostname" {
  description = "DNS name that you point at the address; empty: the address itself is what agents and people type."
  type        = string
  default     = ""

  validation {
    condition     = can(regex("^[a-zA-Z0-9.-]*$", var.hostname))
    error_message = "A DNS name."
  }
}

variable "subnet" {
  description = "Id of a public subnet to stand in; empty: a network of its own is made."
  type        = string
  default     = ""
}

variable "cidr" {
  description = "Addresses of the network, where it is made here."
  type        = string
  default     = "10.79.0.0/24"
}

variable "callers" {
  description = "Addresses that may reach it: those of agents and people."
  type        = list(string)
  default     = ["0.0.0.0/0"]
}

variable "image" {
  description = "Id of a Debian 12 image; empty: the newest one."
  type        = string
  default     = ""
}

variable "instance_type" {
  description = "Type of the machine; 2 GiB of memory serve hundreds of agents."
  type        = string
  default     = "t3.small"
}

variable "disk_gib" {
  description = "Size of the disk that the database, the keys and the outputs of sessions are on."
  type        = number
  default     = 20
}

variable "provider_roles" {
  description = "ARNs of roles of the module aws that it takes on to make machines, in this account and in others."
  type        = list(string)
  default     = []
}

variable "tags" {
  description = "Tags of everything made here."
  type        = map(string)
  default     = {}
}

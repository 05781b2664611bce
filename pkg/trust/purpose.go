package trust

// Purpose says what a certificate authority of zt is for. A key has one.
type Purpose string

// The five purposes. Cluster stands for one authority per cluster.
const (
	Gateway    Purpose = "gateway"
	Trust      Purpose = "trust"
	Kubeconfig Purpose = "kubeconfig"
	Uplink     Purpose = "uplink"
	Cluster    Purpose = "cluster"
)

// Purposes lists those of which a gateway has exactly one authority each.
func Purposes() []Purpose { return []Purpose{Gateway, Trust, Kubeconfig, Uplink} }

package serve

import (
	"context"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// What etcd answers where nobody was ever added; and nobody can be.
func TestAuthIsNotEnabled(t *testing.T) {
	auth := pb.NewAuthClient(serveFake(t, memberBackend()))
	ctx := context.Background()
	st, err := auth.AuthStatus(ctx, &pb.AuthStatusRequest{})
	if err != nil || st.Enabled || st.AuthRevision != 1 || st.Header.GetMemberId() != 1 {
		t.Errorf("status: %v, %v", st, err)
	}
	users, err := auth.UserList(ctx, &pb.AuthUserListRequest{})
	if err != nil || len(users.Users) > 0 {
		t.Errorf("users: %v, %v", users, err)
	}
	roles, err := auth.RoleList(ctx, &pb.AuthRoleListRequest{})
	if err != nil || len(roles.Roles) > 0 {
		t.Errorf("roles: %v, %v", roles, err)
	}
	if _, err := auth.AuthDisable(ctx, &pb.AuthDisableRequest{}); err != nil {
		t.Errorf("disable: %v", err)
	}
	refused := func(name string, want error, call func() error) {
		if err := call(); status.Convert(err).Message() != status.Convert(want).Message() || status.Code(err) != status.Code(want) {
			t.Errorf("%s: %v; etcd says %v", name, err, want)
		}
	}
	refused("authenticate", rpctypes.ErrGRPCAuthNotEnabled, func() error {
		_, err := auth.Authenticate(ctx, &pb.AuthenticateRequest{Name: "root", Password: "p"})
		return err
	})
	refused("enable", rpctypes.ErrGRPCRootUserNotExist, func() error { _, err := auth.AuthEnable(ctx, &pb.AuthEnableRequest{}); return err })
	refused("user get", rpctypes.ErrGRPCUserNotFound, func() error { _, err := auth.UserGet(ctx, &pb.AuthUserGetRequest{Name: "a"}); return err })
	refused("user delete", rpctypes.ErrGRPCUserNotFound, func() error {
		_, err := auth.UserDelete(ctx, &pb.AuthUserDeleteRequest{Name: "a"})
		return err
	})
	refused("passwd", rpctypes.ErrGRPCUserNotFound, func() error {
		_, err := auth.UserChangePassword(ctx, &pb.AuthUserChangePasswordRequest{Name: "a"})
		return err
	})
	refused("grant", rpctypes.ErrGRPCUserNotFound, func() error {
		_, err := auth.UserGrantRole(ctx, &pb.AuthUserGrantRoleRequest{User: "a", Role: "r"})
		return err
	})
	refused("revoke", rpctypes.ErrGRPCUserNotFound, func() error {
		_, err := auth.UserRevokeRole(ctx, &pb.AuthUserRevokeRoleRequest{Name: "a", Role: "r"})
		return err
	})
	refused("role get", rpctypes.ErrGRPCRoleNotFound, func() error { _, err := auth.RoleGet(ctx, &pb.AuthRoleGetRequest{Role: "r"}); return err })
	refused("role delete", rpctypes.ErrGRPCRoleNotFound, func() error {
		_, err := auth.RoleDelete(ctx, &pb.AuthRoleDeleteRequest{Role: "r"})
		return err
	})
	refused("role grant", rpctypes.ErrGRPCRoleNotFound, func() error {
		_, err := auth.RoleGrantPermission(ctx, &pb.AuthRoleGrantPermissionRequest{Name: "r"})
		return err
	})
	refused("role revoke", rpctypes.ErrGRPCRoleNotFound, func() error {
		_, err := auth.RoleRevokePermission(ctx, &pb.AuthRoleRevokePermissionRequest{Role: "r"})
		return err
	})
	refused("user add without a name", rpctypes.ErrGRPCUserEmpty, func() error { _, err := auth.UserAdd(ctx, &pb.AuthUserAddRequest{}); return err })
	refused("role add without a name", rpctypes.ErrGRPCRoleEmpty, func() error { _, err := auth.RoleAdd(ctx, &pb.AuthRoleAddRequest{}); return err })
	if _, err := auth.UserAdd(ctx, &pb.AuthUserAddRequest{Name: "a"}); status.Code(err) != codes.Unimplemented {
		t.Errorf("user add: %v", err)
	}
	if _, err := auth.RoleAdd(ctx, &pb.AuthRoleAddRequest{Name: "r"}); status.Code(err) != codes.Unimplemented {
		t.Errorf("role add: %v", err)
	}
}

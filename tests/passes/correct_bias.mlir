// RUN: correct-bias
// Without samples nothing is known of the errors, and the bias stays what it is.
// CHECK:      %[[B:.*]] = "hbir.constant"() <{value = {{.*}}}> : () -> tensor<1xf32> loc("bias")
// CHECK:      "hbir.linear"(%{{.*}}, %{{.*}}, %[[B]])
// CHECK-NEXT: "func.return"
"builtin.module"() ({
  "func.func"() <{sym_name = "main", function_type = (tensor<1x2xf32>) -> tensor<1x1xf32>}> ({
  ^bb0(%x: tensor<1x2xf32>):
    %q = "qat.fake_quant"(%x) <{grid = !quant.uniform<i8:f32, 0.5>}> : (tensor<1x2xf32>) -> tensor<1x2xf32>
    %w = "hbir.constant"() <{value = BLOB(f32: 1 0.5)}> : () -> tensor<1x2xf32>
    %f = "qat.fake_quant"(%w) <{grid = !quant.uniform<i8:f32, 0.5>}> : (tensor<1x2xf32>) -> tensor<1x2xf32>
    %b = "hbir.constant"() <{value = BLOB(f32: 1)}> : () -> tensor<1xf32> loc("bias")
    %y = "hbir.linear"(%q, %f, %b) : (tensor<1x2xf32>, tensor<1x2xf32>, tensor<1xf32>) -> tensor<1x1xf32>
    "func.return"(%y) : (tensor<1x1xf32>) -> ()
  }) : () -> ()
}) : () -> ()
